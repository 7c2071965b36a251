"""Commands for operators: status, tables for a terminal, the doctor, logs, progress bars."""
