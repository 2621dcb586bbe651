"""The torture test: real processes, killed, stopped and raced, against a destination that misbehaves."""
