"""Score dehazing methods on data sets and write down what came out."""
