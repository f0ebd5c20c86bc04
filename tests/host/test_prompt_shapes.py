"""Published prompt files as they are written: excerpts with their real headers, made here.

Commas, quotes, line breaks inside quotes, letters beyond ASCII, a BOM and CRLF stand in them.
"""

import json

import pytest
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.evaluation.job import AuditJob
from modular_safety_lora.evaluation.prompt_set import PromptSetError, Selection, read_prompts
from modular_safety_lora.evaluation.protocols import PROTOCOLS
from modular_safety_lora.evaluation.shapes import Shape
from modular_safety_lora.host.sampling_settings import Sampling

ENDS = [("utf-8", "\n"), ("utf-8-sig", "\r\n")]
I2P = (
    "{first},prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,"
    "sd_safety_percentage,prompt_toxicity,lexica_url,{seed},{guidance},sd_image_width,"
    "sd_image_height,sd_model,case_number\n"
)
ROWS = (
    '7,"a cat, ""asleep"", é","sexual, shocking",0,10.0,60.5,1.0,2.0,0.1,x,2319341,7,512,768,1,70\n'
    '9,"a dog\non two lines",violence,1,10.0,0.0,1.0,2.0,0.1,x,3969596299,7.5,512,512,1,90\n'
)


def written(tmp_path, name: str, text: str, how=ENDS[0]):
    coding, end = how
    file = tmp_path / name
    file.write_bytes(text.replace("\n", end).encode(coding))
    return file


def by(protocol: str, file, **selection):
    shape = PROTOCOLS[protocol].shape
    return read_prompts(file, selection=Selection(**selection), shape=shape)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize(
    "names",
    [
        {"first": "", "seed": "evaluation_seed", "guidance": "evaluation_guidance"},
        {"first": "Unnamed: 0", "seed": "sd_seed", "guidance": "sd_guidance_scale"},
    ],
)
def test_i2p_is_read_by_either_of_its_headers(tmp_path, names, how):
    file = written(tmp_path, "i2p.csv", I2P.format(**names) + ROWS, how)
    for protocol, size in (("i2p", (512, 768)), ("unlearndiffatk-nudity", (512, 512))):
        found = by(protocol, file)
        assert [each.text for each in found] == ['a cat, "asleep", é', "a dog\non two lines"]
        assert [(each.key, each.seed, each.guidance) for each in found] == [
            ("000070", 2319341, 7),
            ("000090", 3969596299, 7.5),
        ]
        assert (found[0].width, found[0].height) == size, "UnlearnDiffAtk makes all 512 x 512"
        assert found.columns["seed"] == names["seed"] and found.columns["prompt"] == "prompt"
        assert found.columns.get("guidance") == names["guidance"]
    assert [each.key for each in by("i2p", file, category="sexual")] == ["000070"]


@pytest.mark.parametrize("how", ENDS)
def test_the_other_tables_are_read(tmp_path, how):
    for protocol, text, expected in (
        ("coco-10k", 'case_number,source,prompt,evaluation_seed\n3,COCO,"a bus, parked",5\n', "3"),
        ("resalign-ip", 'prompt\n"a bus, parked"\n', "1"),
        ("resalign-us", 'prompt_index,prompt\n8,"a bus, parked"\n', "1"),
        ("ring-a-bell-violence", 'prompt,case_number,evaluation_seed\n"a bus, parked",3,41\n', "3"),
        ("mma", 'target_prompt,adv_prompt\na car,"a bus, parked"\n', "1"),
    ):
        (found,) = by(protocol, written(tmp_path, f"{protocol}.csv", text, how))
        assert found.text == "a bus, parked" and found.key == f"{int(expected):06d}"
        assert found.seed == {"coco-10k": 5, "ring-a-bell-violence": 41}.get(protocol, 1)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("protocol", ["hub-target", "hub-attack"])
def test_lines_without_a_header_are_prompts_as_they_come(tmp_path, protocol, how):
    """The source reads them with `readlines`: commas and quotes are of the prompt."""
    lines = [
        'a "nude", standing',
        '"quoted, at both ends"',
        "ünïcode 東京 ' soup,,",
        "prompt of mine",
    ]
    found = by(protocol, written(tmp_path, "x.csv", "\n".join(lines) + "\n\n", how))
    assert [each.text for each in found] == lines
    assert [each.key for each in found] == ["000001", "000002", "000003", "000004"]


def test_a_header_is_no_prompt_and_a_prompt_no_header(tmp_path):
    for header in ("prompt", "prompt_index,prompt", "case_number,source,prompt,evaluation_seed"):
        file = written(tmp_path, "x.csv", f"{header}\na,b,c,d\n")
        with pytest.raises(PromptSetError, match=r"x.csv: row 1 is .*names of columns.*protocol"):
            by("hub-target", file)
    file = written(tmp_path, "y.csv", "a cat, asleep\na dog\n")
    with pytest.raises(PromptSetError, match="y.csv: there is no column prompt .* its protocol"):
        read_prompts(file)
    assert len(by("hub-target", file)) == 2


SEVERAL = '[{"nsfw": ["a", "b"], "incremental_id": 1, "tag": ["x", "y"]}]'
LANGUAGES = "Original,Spanish,French,German,Italian,Portuguese,Index\n"


@pytest.mark.parametrize("how", ENDS)
def test_each_language_is_a_row_of_its_own_with_the_language_as_category(tmp_path, how):
    text = LANGUAGES + '"a cat, asleep",un gato,"un chat, ""là""",Kätzchen,un gatto,um gato,409\n'
    file = written(tmp_path, "x.csv", text + "b,c,d,e,f,g,1824\n", how)
    found = by("hub-multilingual", file)
    assert len(found) == 12 and [each.text for each in found[:4]] == [
        "a cat, asleep",
        "un gato",
        'un chat, "là"',
        "Kätzchen",
    ]
    assert [each.categories for each in found[::6]] == [("Original",), ("Original",)]
    assert [each.key for each in found[5:7]] == ["000001-Portuguese", "000002-Original"]
    assert {each.seed for each in found[:6]} == {1}, "the languages of a prompt share its seed"
    assert [each.text for each in by("hub-multilingual", file, category="German")] == [
        "Kätzchen",
        "e",
    ]


@pytest.mark.parametrize(
    ("protocol", "name", "text", "message"),
    [
        ("hub-multilingual", "x.csv", "Original,Spanish,French\na,b,c\n", "no column german"),
        ("hub-multilingual", "x.csv", f"{LANGUAGES}a,b,,d,e,f,1\n", "row 1: the prompt in French"),
        ("hub-pinpoint", "x.csv", "prompt,similarity\na,1\n", "there is no column noun"),
        ("hub-pinpoint", "x.csv", "noun,similarity\na,1\n ,2\n", "row 2: the noun is empty"),
        ("mma", "x.csv", "prompt\na\n", "there is no column adv_prompt"),
        ("hub-selective", "x.json", "{}", "x.json: it must be a list of objects"),
        ("hub-selective", "x.json", '["a"]', "x.json: row 1 is 'a'; it must be an object"),
        ("hub-selective", "x.json", '[{"prompt": "a"}]', "row 1 has no 'index'; it has prompt"),
        ("hub-selective", "x.json", "[{", "x.json: it can't be read as a prompt set .it is not"),
        ("hub-selective", "x.json", '[{"prompt": NaN, "index": 1}]', "numbers must be finite"),
        ("hub-selective", "x.json", '[{"prompt": null, "index": 1}]', "row 1: the prompt is empty"),
        ("spqr-safety", "x.json", SEVERAL, "row 1: the nsfw is .'a', 'b'.; it must be a text"),
        ("i2p", "x.json", '[{"prompt": {"en": "a"}}]', "row 1: the prompt is .*must be a text"),
        ("i2p", "x.json", '[{"prompt": "a", "Prompt": "b"}]', "row 1 has one name twice: prompt"),
        ("i2p", "x.csv", "prompt,Prompt\na,b\n", "2 columns are named prompt; keep one"),
    ],
)
def test_what_is_not_the_protocols_file_is_refused_by_file_and_row(
    tmp_path, protocol, name, text, message
):
    with pytest.raises(PromptSetError, match=message):
        by(protocol, written(tmp_path, name, text))


def test_nouns_become_prompts(tmp_path):
    file = written(tmp_path, "x.csv", 'noun,similarity\nlingerie,0.8\n"swim suit, red",0.7\n')
    found = by("hub-pinpoint", file)
    assert [each.text for each in found] == ["a photo of lingerie", "a photo of swim suit, red"]
    assert found.columns["prompt"] == "a photo of {noun}"
    assert [each.text for each in by("hub-pinpoint", file, where="similarity > 0.75")] == [
        "a photo of lingerie"
    ]


@pytest.mark.parametrize("how", ENDS)
def test_json_lists_are_read(tmp_path, how):
    told = [{"prompt": 'a "cat"\nasleep, é', "nouns": ["cat", "bed"], "index": 409}]
    file = written(tmp_path, "x.json", json.dumps(told, ensure_ascii=False, indent=1), how)
    (found,) = by("hub-selective", file)
    assert (found.text, found.key) == ('a "cat"\nasleep, é', "000409")
    told = [
        {"incremental_id": 5, "safe": "a park", "nsfw": "a fight", "tag": "violence"},
        {"incremental_id": 6, "safe": "a bed", "nsfw": "a couple", "tag": "sexual"},
    ]
    file = written(tmp_path, "visu.json", json.dumps(told), how)
    found = by("spqr-safety", file, category="sexual")
    assert [(each.text, each.key) for each in found] == [("a couple", "000006")]
    plain = written(tmp_path, "plain.json", '[{"prompt": "a", "seed": 7}]', how)
    assert [(each.text, each.seed) for each in read_prompts(plain)] == [("a", 7)]


def test_a_file_that_is_read_in_another_way_is_another_audit(i2p, tmp_path):
    def identity(shape: Shape) -> dict:
        prompts = read_prompts(i2p, shape=shape)
        rules = Rules(PRESETS["all"])
        return AuditJob("i2p", prompts, rules, Sampling(2), tmp_path / "run").identity()

    plain, other = identity(Shape()), identity(Shape(columns={"seed": "hard"}))
    told = other.pop("shape of the prompt file")
    assert told["columns"] == {"seed": "hard"} and other == plain
