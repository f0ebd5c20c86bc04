"""The shipped workflows run from the browser, and what they show can be seen and read."""

import pytest
from modular_safety_lora.lab.frontend import open_workflow, settle
from modular_safety_lora.lab.plans import COMPARE, MERGE, SETS, TASK
from screenshots import SCREENSHOTS, look_at, node_of


def show_all(page, width: int = 4500) -> None:
    """Bring the whole graph onto the screen: pictures are loaded where they are seen."""
    page.evaluate(
        """(width) => {
            const left = Math.min(...app.graph._nodes.map((node) => node.pos[0]))
            const top = Math.min(...app.graph._nodes.map((node) => node.pos[1]))
            app.canvas.ds.scale = 1500 / width
            app.canvas.ds.offset = [130 - left, 260 - top]
            app.canvas.setDirty(true, true)
        }""",
        width,
    )


def test_it_runs_from_the_browser_and_shows_pictures_and_reports(page):
    open_workflow(page, MERGE)
    show_all(page)
    page.evaluate("""() => {
            const small = { width: 64, height: 64, steps: 2 }
            for (const node of app.graph._nodes)
                for (const widget of node.widgets || [])
                    if (widget.name in small) widget.value = small[widget.name]
        }""")
    page.evaluate("async () => app.queuePrompt(0)")
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.type === 'SaveImage').imgs?.length === 2",
        timeout=120_000,
    )
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.type === 'MSL_NudityAudit').imgs?.length === 1",
        timeout=20_000,
    )
    settle(page)
    texts = page.evaluate("""() => app.graph._nodes.filter((node) => node.type === 'PreviewAny')
            .map((node) => node.widgets.map((widget) => String(widget.value)).join(' '))""")
    assert any("The safety LoRA holds" in text for text in texts)
    assert any("of 2 pictures flagged" in text for text in texts)
    page.evaluate(
        """() => {
            app.canvas.ds.scale = 0.62
            app.canvas.ds.offset = [110, 160]
            app.canvas.setDirty(true, true)
        }"""
    )
    settle(page)
    page.screenshot(path=SCREENSHOTS / "workflow.png")


def test_training_shows_progress_and_previews_on_the_node_and_its_chart(page):
    open_workflow(page, TASK)
    show_all(page)
    page.evaluate("""() => {
            const node = app.graph._nodes.find((node) => node.type === 'MSL_TrainTaskLora')
            const small = { save_as: 'seen-in-the-browser', steps: 12, preview_every: 6,
                            preview_size: 64, preview_steps: 2 }
            for (const widget of node.widgets)
                if (widget.name in small) widget.value = small[widget.name]
            for (const [type, name, value] of [['EmptyLatentImage', 'width', 64],
                                               ['EmptyLatentImage', 'height', 64],
                                               ['KSampler', 'steps', 2]])
                app.graph._nodes.find((node) => node.type === type)
                    .widgets.find((one) => one.name === name).value = value
        }""")
    page.evaluate("async () => app.queuePrompt(0)")
    train = "app.graph._nodes.find((node) => node.type === 'MSL_TrainTaskLora')"
    page.wait_for_function(
        f"{train}.widgets.some((each) => /^step \\d+ of 12, task 0?\\d/.test(each.value))",
        timeout=60_000,
    )
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.title === 'Loss and audited previews').imgs?.length"
        " === 1",
        timeout=120_000,
    )
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.type === 'MSL_NudityAudit').imgs?.length === 1",
        timeout=120_000,
    )
    settle(page)
    look_at(page, node_of(page, "PreviewImage"), "training-chart.png", scale=1.1)
    look_at(page, node_of(page, "MSL_TrainTaskLora"), "training-done.png", scale=0.7)
    page.workflow = None  # changed: the next test opens it again


@pytest.mark.long
def test_audits_are_compared_with_a_chart_and_a_sheet_of_changed_pictures(page):
    open_workflow(page, COMPARE)
    show_all(page)
    page.evaluate("""() => {
            for (const [type, name, value] of [['EmptyLatentImage', 'width', 64],
                                               ['EmptyLatentImage', 'height', 64]])
                app.graph._nodes.find((node) => node.type === type)
                    .widgets.find((one) => one.name === name).value = value
            for (const node of app.graph._nodes.filter((each) => each.type === 'KSampler'))
                node.widgets.find((one) => one.name === 'steps').value = 2
        }""")
    page.evaluate("async () => app.queuePrompt(0)")
    for title in ("Chart", "Changed pictures, censored"):
        page.wait_for_function(
            f"app.graph._nodes.find((node) => node.title === '{title}').imgs?.length === 1",
            timeout=180_000,
        )
    settle(page)
    text = page.evaluate(
        "() => app.graph._nodes.find((node) => node.title === 'Table').widgets[0].value"
    )
    assert "4 pictures each" in text and "base against modular" in text
    page.screenshot(path=SCREENSHOTS / "compare.png")
    look_at(page, node_of(page, "MSL_CompareAudits"), "compare-node.png", scale=1.3)
    page.workflow = None


def test_a_prompt_set_shows_its_pictures_and_then_its_chart_and_goes_on_when_run_again(
    page, server
):
    open_workflow(page, SETS)
    show_all(page)
    page.evaluate("""() => {
            const small = { steps: 1, width: 64, height: 64, limit: 2 }
            const audits = app.graph._nodes.filter((each) => each.type === 'MSL_AuditPromptSet')
            for (const node of audits)
                for (const widget of node.widgets)
                    if (widget.name in small) widget.value = small[widget.name]
        }""")
    page.evaluate("async () => app.queuePrompt(0)")
    first = "app.graph._nodes.find((node) => node.title === 'Audit Prompt Set: base')"
    page.wait_for_function(f"{first}.imgs?.length === 1", timeout=120_000)
    page.wait_for_function(
        "app.graph._nodes.find((node) => node.title === 'Chart').imgs?.length === 1",
        timeout=180_000,
    )
    # the chart, not the last picture
    page.wait_for_function(f"{first}.imgs[0].naturalWidth === 1000", timeout=20_000)
    settle(page)
    page.screenshot(path=SCREENSHOTS / "prompt-set.png")
    for name in ("base", "safe", "modular"):
        assert (server.folder / "output" / "audits" / name / "report.html").is_file()
    page.workflow = None


def test_a_report_page_is_whole_in_the_browser(page, browser, server):
    report = browser.new_page(viewport={"width": 1280, "height": 800})
    complaints = []
    report.on("console", lambda line: complaints.append(line.text))
    report.on(
        "request",
        lambda request: (
            complaints.append(request.url) if not request.url.startswith("file:") else None
        ),
    )
    report.goto((server.folder / "output" / "audits" / "base" / "report.html").as_uri())
    for width, least in ((1280, 400), (390, 300)):
        report.set_viewport_size({"width": width, "height": 800})
        sizes = report.evaluate(
            "() => [...document.querySelectorAll('svg')]"
            ".map((each) => each.getBoundingClientRect().width)"
        )
        assert len(sizes) >= 2 and min(sizes) > least and complaints == []
        across = report.evaluate("() => document.documentElement.scrollWidth")
        assert across <= width, f"{across} pixels wide on a screen of {width}"
        report.screenshot(path=SCREENSHOTS / f"report-{width}.png")
    report.set_viewport_size({"width": 1280, "height": 800})
    report.screenshot(path=SCREENSHOTS / "report.png", full_page=True)
    report.close()
