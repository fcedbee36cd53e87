"""What breaks a model: corrupted images, attacks, and images without shape or texture."""
