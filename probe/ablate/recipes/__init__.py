"""Published methods as recipes over the operators, one file a family of methods."""
