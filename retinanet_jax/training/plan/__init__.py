"""What the compilers plan for a run on chips that this machine may lack: memory, time, fit."""
