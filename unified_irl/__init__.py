"""Learn rewards and policies from what people do and what they prefer."""
