"""Tables as people have them: `TabularClassifier` and `TabularRegressor`."""
