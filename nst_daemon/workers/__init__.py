"""Where jobs run: messages, executors, and the supervision of workers on this machine and on clusters."""
