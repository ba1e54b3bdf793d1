"""One simulated robot in real time, in a process of its own."""
