"""`python -m nst_daemon` is `nst-daemon`."""

from nst_daemon.cli import main

if __name__ == "__main__":
    main()
