"""Where the time goes that arithmetic does not need."""
