"""`ruac label`: masks for many images, and the order in which a person should look at them."""
