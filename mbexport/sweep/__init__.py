"""Many artifacts at once: built and checked in workers, measured one after the other, resumable at any moment."""
