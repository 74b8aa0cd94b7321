#!/usr/bin/env python
"""
A page in the browser: a query in one language, documents in another, ranked, with the sentences that carry the score.

    python space/app.py [--models output/demo/clir-bertlong] [--port 7860]

Runs on a CPU. A model is a folder or Hub name. `scripts/build_space.py` makes a folder of this page for a Space of the
Hub; there the models are those of models.json.
"""

import json
import os
from functools import cache
from pathlib import Path

from modeling_clir.names import check_name
from modeling_clir.program import Parser, run_program, share_cores


HERE = Path(__file__).resolve().parent
SAMPLE = next((path for path in (HERE / "sample", HERE.parent / "sample/test") if path.is_dir()), HERE / "sample")
LANGUAGES = {"English": "en", "Deutsch": "de", "Français": "fr", "Español": "es"}
SOURCES = ("the sample", "pasted", "uploaded")
EXAMPLES = [
    ["Was können Besucher im alten Schleusenwärterhaus an der Schleuse Hollerbeck sehen?", "English"],
    ["How does Hollerbeck Lock save water each time its chamber is emptied?", "Español"],
    ["¿Qué inundó la galería sur del túnel del Grauhorn durante la excavación en 1901?", "Deutsch"],
]
CSS = """
.hits { list-style: none; margin: 0; padding: 0; } .hit { border-top: 1px solid #8886; margin: 0; padding: .6em 0; }
.hit .text { display: block; margin-top: .3em; overflow-wrap: anywhere; white-space: pre-line; } .hit mark { color: inherit; }
.score { font-variant-numeric: tabular-nums; font-weight: 600; margin: 0 .5em; }
.note { opacity: .8; } .problem { border-left: 4px solid #d33; margin: 0; padding: .5em .8em; }
"""
ABOUT = """
The sample's documents are short texts on invented places, in four languages with the same content. A sentence is
highlighted by how far the score drops when it is left out. Your own documents stay on the machine that runs this page.
"""


def build(models: list[str]):
    """Makes the page, a `gradio.Blocks`. The first of the models is opened at once, others when they are chosen."""
    import gradio as gr

    from modeling_clir import page
    from modeling_clir.reranker import Reranker

    sample = page.read_sample(SAMPLE)

    @cache
    def open_model(name: str) -> Reranker:
        return Reranker.from_pretrained(name)

    def describe(name: str) -> str:
        return page.describe_model(name, open_model(name))

    def show_source(source: str):
        return gr.update(visible=source == SOURCES[1]), gr.update(visible=source == SOURCES[2])

    def answer(query: str, source: str, language: str, pasted: str, upload: str | None, name: str, highlight: bool):
        try:
            code = LANGUAGES[language]
            if source == SOURCES[0]:
                documents = sample.get(code, [])
            elif source == SOURCES[1]:
                documents = page.split_pasted(pasted)
            else:
                documents = page.read_upload(Path(upload)) if upload else []
            page.check_input(query, documents)
            return page.show_hits(*page.rank(open_model(name), query, documents, code, highlight))
        except (OSError, ValueError) as error:
            return page.show_problem(str(error))

    note = describe(models[0])
    with gr.Blocks(title="Cross-lingual reranking", analytics_enabled=False) as demo:
        gr.Markdown("# Cross-lingual reranking\nAsk in one language; rank documents in another.")
        query = gr.Textbox(label="Query, in any language of the model", lines=3, max_lines=6, elem_id="query")
        with gr.Row():
            source = gr.Radio(SOURCES, value=SOURCES[0], label="Documents", elem_id="source")
            language = gr.Dropdown(
                list(LANGUAGES), value="English", label="Language of the documents", elem_id="language"
            )
        pasted = gr.Textbox(
            label="Documents, separated by empty lines", lines=8, max_lines=20, visible=False, elem_id="pasted"
        )
        upload = gr.File(label="A file: .txt, .jsonl (text) or .csv (column text)", visible=False, elem_id="upload")
        with gr.Row():
            names = [(Path(model).name if Path(model).is_dir() else model, model) for model in models]
            name = gr.Dropdown(names, value=models[0], label="Model", visible=len(models) > 1, elem_id="model")
            highlight = gr.Checkbox(True, label="Highlight the sentences that carry the score", elem_id="highlight")
        button = gr.Button("Rank", variant="primary", elem_id="rank")
        gr.Examples(EXAMPLES, [query, language])
        with gr.Accordion("What model this is, and how good", open=False, elem_id="about"):
            about = gr.Markdown(note)
            gr.Markdown(ABOUT)
        results = gr.HTML(elem_id="results")
        inputs = [query, source, language, pasted, upload, name, highlight]
        gr.on([button.click, query.submit], answer, inputs, results, api_name="rank")
        source.change(show_source, source, [pasted, upload], api_visibility="private")
        name.change(describe, name, about, api_visibility="private")
    return demo


def main():
    share_cores()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    given = HERE / "models.json"
    models = json.loads(given.read_text(encoding="utf-8")) if given.is_file() else ["output/demo/clir-bertlong"]
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--models", nargs="+", default=models, help=f"folders or Hub names (default: {' '.join(models)})"
    )
    parser.add_argument("--port", type=int, help="port of the page (default: 7860, or the next free one)")
    args = parser.parse_args()
    models = [str(HERE / model) if (HERE / model).is_dir() else model for model in args.models]
    for model in models:
        check_name(model, "model")
    demo = build(models)
    demo.launch(server_port=args.port, css=CSS, max_file_size="5mb", footer_links=[])


if __name__ == "__main__":
    run_program(main)
