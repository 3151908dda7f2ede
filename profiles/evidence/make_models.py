"""Makes the models that the evidence is taken with, below the directory that is named: random weights, few MB.

small    three bf16 shards with an index, a tokenizer and a chat template
seven    the same in seven shards, 24 layers, 150 MB: large enough to see the order inside shards
bin      small as pytorch_model-*.bin
remote   small with its own code, for trust_remote_code
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SMALL = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
root = Path(sys.argv[1])
torch.manual_seed(0)


def make(name, shard_size, **config):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"])
    tokenizer.train_from_iterator(["hello world, this is a tokenizer"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    fast.save_pretrained(root / name)
    config = LlamaConfig(vocab_size=512, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, **config)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(root / name, max_shard_size=shard_size)


make("small", "2MB", num_hidden_layers=4, hidden_size=256, intermediate_size=512,
     num_attention_heads=4, num_key_value_heads=2)
make("seven", "24MB", num_hidden_layers=24, hidden_size=512, intermediate_size=1376,
     num_attention_heads=8, num_key_value_heads=8)

for name in ["bin", "remote"]:
    (root / name).mkdir(exist_ok=True)
    for file in SMALL:
        shutil.copy(root / "small" / file, root / name)

index = json.loads((root / "small/model.safetensors.index.json").read_text())
renamed = lambda shard: "pytorch_" + shard.replace(".safetensors", ".bin")
for shard in set(index["weight_map"].values()):
    torch.save(load_file(root / "small" / shard), root / "bin" / renamed(shard))
    shutil.copy(root / "small" / shard, root / "remote")
shutil.copy(root / "small/model.safetensors.index.json", root / "remote")
index["weight_map"] = {key: renamed(shard) for key, shard in index["weight_map"].items()}
(root / "bin/pytorch_model.bin.index.json").write_text(json.dumps(index))

config = json.loads((root / "remote/config.json").read_text())
config |= {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": {
    "AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}}
(root / "remote/config.json").write_text(json.dumps(config, indent=2))
(root / "remote/configuration_own.py").write_text(
    "from transformers import LlamaConfig\n\n\nclass OwnConfig(LlamaConfig):\n    model_type = 'own'\n")
(root / "remote/helpers_own.py").write_text("X = 1\n")
(root / "remote/modeling_own.py").write_text(
    "from transformers import LlamaForCausalLM\nfrom .configuration_own import OwnConfig\nfrom .helpers_own import X\n"
    "\n\nclass OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n")
