"""`backhaul demo`: a complete example on this machine alone, made of the commands that a user types."""

from backhaul.demo.story import run

__all__ = ["run"]
