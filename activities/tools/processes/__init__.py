"""Work with limits of its own (SQL, regular expressions): in child processes that can be killed."""
