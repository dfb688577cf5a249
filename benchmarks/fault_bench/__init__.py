"""Single faults put into a finished artifact or round its session, to measure what the accuracy check sees of them."""
