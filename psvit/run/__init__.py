"""What every run is: a folder, files written whole, random streams, signals, jobs, progress. No torch."""
