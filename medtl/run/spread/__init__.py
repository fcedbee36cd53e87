"""One piece of work on many machines: its shares, who does them, and how they become one again."""
