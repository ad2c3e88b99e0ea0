"""The usage API: a process that answers what users may do, and what they have used."""
