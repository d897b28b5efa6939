// anatomy
