// surgery
