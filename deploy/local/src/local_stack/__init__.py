"""The real parts of the stack as plain processes of one machine, without Docker or root."""
