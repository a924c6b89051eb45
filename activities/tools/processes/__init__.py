"""Work with its own limits (SQL, regular expressions): in child processes that can be killed."""
