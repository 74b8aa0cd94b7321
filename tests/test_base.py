"""The base in the repository, and the script that makes one."""

import torch
from transformers import AutoModel, AutoTokenizer, BertModel

from modeling_clir.convert import load_bert

from .conftest import REPOSITORY, run


def test_base_is_a_bert_of_its_tokenizer():
    folder = REPOSITORY / "base"
    assert (folder / "model.safetensors").stat().st_size < 10e6
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert isinstance(model, BertModel) and not report["missing_keys"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == model.config.vocab_size
    assert model.dtype == torch.float16 and load_bert(folder).dtype == torch.float32


def test_words_of_the_same_sections_start_near_each_other(sample_corpus, tmp_path):
    sizes = ("--vocab_size", "4000", "--hidden_size", "48", "--intermediate_size", "64")
    run("scripts/initialize_base.py", sample_corpus, tmp_path / "initial", *sizes)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "initial")
    words = BertModel.from_pretrained(tmp_path / "initial").embeddings.word_embeddings.weight
    words = torch.nn.functional.normalize(words, dim=1)
    translations = [("lighthouse", "leuchtturm"), ("tower", "turm"), ("bridge", "brucke"), ("water", "agua")]
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(pair) for pair in translations])
    assert (ids != tokenizer.unk_token_id).all()
    similar = words[ids[:, 0]] @ words[ids[:, 1]].T
    others = similar[~torch.eye(len(translations), dtype=torch.bool)]
    assert similar.diagonal().min() > others.max()
    done = run("scripts/initialize_base.py", sample_corpus, tmp_path / "initial", check=False)
    assert done.returncode and "exists" in done.stderr
