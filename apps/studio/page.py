"""The page: what it is made of, and how it is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.studio.service import Service
from apps.studio.visitors import MAKE_OWNER, Studio, visitor

if TYPE_CHECKING:
    import gradio as gr

UPLOAD_BYTES = 64 << 20
QUEUED = 64
"""Events that wait at most; jobs have bounds of their own (`apps.studio.service.Bounds`)."""

SESSIONS = 200
KEEP_SECONDS = (600, 3600)
"""How often Gradio's own copies of uploads are looked through, and how old they get."""

TOUCH_SECONDS = 300.0
"""How often an open page says so, for its files to be kept."""

INTRO = """# INR Studio
A signal becomes a continuous function: a small network, a **field**, is fitted to it while you
watch. Drop a picture, sound, clip, volume or shape, press Start, and take the `.inr` file away."""


def build(service: Service, uploads: Path) -> gr.Blocks:
    """The app.

    Args:
        service: Where jobs run.
        uploads: The folder below which Gradio keeps uploads.
    """
    import gradio as gr

    from apps.studio import api
    from apps.studio.tabs import compare, compress, explore, fit

    with gr.Blocks(
        title="INR Studio", analytics_enabled=False, delete_cache=KEEP_SECONDS, fill_width=True
    ) as page:
        studio = Studio(service, uploads, gr.Textbox(visible=False, elem_id="owner"))
        gr.Markdown(INTRO, elem_id="intro")
        with gr.Tabs(elem_id="tabs"):
            tabs = {"Fit": fit, "Explore": explore, "Compare": compare, "Compress": compress}
            for name, tab in tabs.items():
                with gr.Tab(name, id=name.lower(), render_children=True):
                    tab.build(studio)
        api.build(studio)
        page.load(None, None, studio.owner, js=MAKE_OWNER)
        gr.Timer(TOUCH_SECONDS).tick(
            lambda owner: service.touch(visitor(owner)),
            studio.owner,
            None,
            api_visibility="private",
            show_progress="hidden",
        )
    page.queue(max_size=QUEUED, default_concurrency_limit=8)
    return page


def options() -> dict[str, Any]:
    """What `Blocks.launch` is given, but for addresses and passwords."""
    import gradio as gr

    from apps.studio import components

    system = ["system-ui", "sans-serif"]
    mono = ["ui-monospace", "monospace"]
    return {
        "share": False,
        "quiet": True,
        "show_error": False,
        "strict_cors": True,
        "max_file_size": UPLOAD_BYTES,
        "state_session_capacity": SESSIONS,
        "allowed_paths": [],
        "blocked_paths": [str(Path.home())],
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "footer_links": ["api"],
        "theme": gr.themes.Default(primary_hue="blue", font=system, font_mono=mono).set(
            # as it is, explanations are too pale to be read
            block_info_text_color="*neutral_600",
            block_info_text_color_dark="*neutral_300",
        ),
        "head": components.head(),
        "css": components.css(),
    }
