// method
