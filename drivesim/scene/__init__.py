"""The nouns of driving: scenes, frames, cameras and ego states, and where they are read from."""
