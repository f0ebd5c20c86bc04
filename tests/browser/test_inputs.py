"""What a node shows of its inputs, and its sockets' colours, in both renderings of the frontend."""

import pytest
from modular_safety_lora.lab.frontend import settle
from screenshots import SCREENSHOTS

LARGE = ("MSL_TrainSafetyLora", "MSL_TrainTaskLora", "MSL_AuditPromptSet")
STATE = """() => app.graph._nodes.map((node) => ({
    shown: node.widgets.filter((each) => !each.hidden && each.type !== 'button').length,
    basic: node.widgets.filter((each) => !each.options?.advanced && each.type !== 'button').length,
    all: node.widgets.filter((each) => each.type !== 'button').length,
    buttons: node.widgets.filter((each) => each.type === 'button').length,
    saved: node.serialize().widgets_values.length,
}))"""
NODES_2 = "async (on) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"


def place(page) -> None:
    """The large nodes in an empty graph."""
    page.evaluate("() => app.graph.clear()")
    page.workflow = None
    page.evaluate(
        """(types) => types.forEach((type, place) => {
            const node = LiteGraph.createNode(type)
            node.pos = [100 + 500 * place, 100]
            app.graph.add(node)
        })""",
        LARGE,
    )
    page.evaluate("() => { app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [50, 50] }")
    settle(page)


@pytest.fixture
def nodes(page):
    """The large nodes, in the classic rendering at first and at last."""
    place(page)
    yield page
    page.evaluate(NODES_2, False)
    settle(page)
    page.evaluate("() => app.graph.clear()")


def test_ten_inputs_show_and_a_button_shows_the_rest(nodes):
    nodes.screenshot(path=SCREENSHOTS / "inputs-classic.png")
    for node in nodes.evaluate(STATE):
        assert node["shown"] == node["basic"] <= 10 < node["all"] == node["saved"]
        assert node["buttons"] == 1
    height = "() => app.graph._nodes[0].size[1]"
    before = nodes.evaluate(height)
    press = "() => app.graph._nodes[0].widgets.find((each) => each.type === 'button').callback()"
    nodes.evaluate(press)
    first, second, _ = nodes.evaluate(STATE)
    assert first["shown"] == first["all"] and second["shown"] <= 10
    assert nodes.evaluate(height) > before
    kept = "() => app.graph._nodes[0].clone().widgets.filter((each) => !each.hidden).length"
    assert nodes.evaluate(kept) == first["all"] + 1, "a copy shows what the node shows"
    nodes.evaluate(press)
    assert nodes.evaluate(STATE)[0] == first | {"shown": first["basic"]}
    assert nodes.evaluate(height) == before


SPOKEN = "document.getElementById('vue-app').__vue_app__.config.globalProperties.$i18n.locale"


def speak(page, language: str) -> None:
    """Choose a language in the settings and wait for it; its graph is then built again."""
    chosen = "async (language) => app.extensionManager.setting.set('Comfy.Locale', language)"
    page.evaluate(chosen, language)
    page.wait_for_function(f"(language) => {SPOKEN} === language", arg=language, timeout=20_000)
    settle(page)


def test_the_button_speaks_the_language_of_the_settings(nodes):
    """In English what the script itself says, else what is made of the catalogues."""
    button = "app.graph._nodes[0].widgets.find((each) => each.type === 'button')"
    assert nodes.evaluate(f"() => {button}.label") == "Show 29 more inputs"
    pressed = f"() => {{ {button}.callback(); return {button}.label }}"
    try:
        speak(nodes, "pt-BR")
        place(nodes)
        assert nodes.evaluate(pressed) == "Mostrar menos entradas"
        assert nodes.evaluate(pressed) == "Mostrar mais 29 entradas"
    finally:
        speak(nodes, "en")


def test_choices_show_their_words_and_stay_what_they_are(nodes):
    """In both renderings; what is sent and saved is the English word."""
    words = "const { CHOICES } = await import('/extensions/modular-safety-lora/words.js')"
    nodes.evaluate(f"async () => {{ {words}; CHOICES.en = {{ none: 'nothing at all (none)' }} }}")
    # by a number that no test had: the frontend keeps the labels of an earlier node by its number
    nodes.evaluate(
        """() => {
            const node = LiteGraph.createNode('MSL_NudityAudit')
            node.id = 7001
            app.graph.clear()
            app.graph.add(node)
        }"""
    )
    widgets = "app.graph._nodes[0].widgets.filter((each) => each.type === 'combo')"
    try:
        shown = nodes.evaluate(f"() => {widgets}.map((each) => each._displayValue)")
        assert shown == ["strict", "nothing at all (none)", "nothing at all (none)"]
        assert nodes.evaluate(f"() => {widgets}.map((each) => each.value)")[1] == "none"
        assert nodes.evaluate("() => app.graph.serialize().nodes[0].widgets_values")[2] == "none"
        nodes.evaluate(NODES_2, True)
        nodes.get_by_text("nothing at all (none)").first.wait_for(timeout=20_000)
    finally:
        nodes.evaluate(f"async () => {{ {words}; delete CHOICES.en }}")


def test_nodes_2_have_their_own_button(nodes):
    nodes.evaluate(NODES_2, True)
    nodes.get_by_text("Show advanced inputs").nth(2).wait_for(timeout=20_000)
    settle(nodes)
    nodes.screenshot(path=SCREENSHOTS / "inputs-nodes-2.png")
    for node in nodes.evaluate(STATE):
        assert node["buttons"] == 0 and node["shown"] == node["all"] == node["saved"]
    assert nodes.get_by_text("preview_every").count() == 0


def test_sockets_have_colours(nodes):
    colours = "() => [LGraphCanvas.link_type_colors, app.canvas.default_connection_color_byType]"
    for told in nodes.evaluate(colours):
        assert told["MSL_SAFETY_LORA"] == "#e8593c" and told["MSL_TASK_LORA"] == "#4fb3a9"
    named = "getComputedStyle(document.documentElement).getPropertyValue"
    assert nodes.evaluate(f"() => {named}('--color-datatype-MSL_SAFETY_LORA')") == "#e8593c"
