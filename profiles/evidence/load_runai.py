"""Streams the safetensors of a directory the way vLLM's runai_streamer loader does."""

import sys

from runai_model_streamer import SafetensorsStreamer, list_safetensors

with SafetensorsStreamer() as streamer:
    streamer.stream_files(list_safetensors(sys.argv[1]))
    for _, tensor in streamer.get_tensors():
        tensor.clone()
