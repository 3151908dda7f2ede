"""Loads a model with transformers and generates a few tokens. `remote` as second argument trusts its code."""

import sys

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

path, trust = sys.argv[1], "remote" in sys.argv[2:]
AutoConfig.from_pretrained(path, trust_remote_code=trust)
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=trust)
model.generate(tokenizer("hello world", return_tensors="pt").input_ids, max_new_tokens=4)
