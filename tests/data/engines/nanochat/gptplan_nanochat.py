# nanochat of 2025-10-30 (dfc88334b61a)
depth = 12
max_seq_len = 2048
num_iterations = 3814
device_batch_size = 8
total_batch_size = 262144
matrix_lr = 0.02
embedding_lr = 0.02
unembedding_lr = 0.02
weight_decay = 0.1
grad_clip = 1.0
warmup_ratio = 0.019926586261143155
warmdown_ratio = 0.20005243838489775
final_lr_frac = 0.1
eval_every = 500
eval_tokens = 65536
core_metric_every = -1
sample_every = 3815
