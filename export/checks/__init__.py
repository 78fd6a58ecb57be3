"""What `export.doctor` looks for in a graph, each file a kind of fault."""
