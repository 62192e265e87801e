"""Many runs as one: what they vary, where they run, what came out."""
