"""Side by side with what one would pick instead, and how single parts hold under load."""
