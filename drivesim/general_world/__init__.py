"""An endless general world drawn on demand: coloured shapes that move before landscapes, with captions."""
