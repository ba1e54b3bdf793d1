import torch

torch.set_num_threads(1)  # the networks here are small: threads cost more than they bring
