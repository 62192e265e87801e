"""The compilers' plans for a run on chips that this machine may not have: memory, time, fit."""
