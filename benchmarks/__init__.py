"""What the project's figures of speed and memory come from; see README.md beside this file."""
