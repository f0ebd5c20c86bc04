// Made by `python dev.py generate`.
export const WORDS = {
  "de": {
    "Show # more inputs": "# weitere Eingänge zeigen",
    "Show fewer inputs": "Weniger Eingänge zeigen",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  },
  "es": {
    "Show # more inputs": "Mostrar # entradas más",
    "Show fewer inputs": "Mostrar menos entradas",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  },
  "fr": {
    "Show # more inputs": "Afficher # entrées de plus",
    "Show fewer inputs": "Afficher moins d’entrées",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  },
  "ja": {
    "Show # more inputs": "ほか#個の入力を表示",
    "Show fewer inputs": "入力を減らす",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  },
  "ko": {
    "Show # more inputs": "입력 #개 더 보기",
    "Show fewer inputs": "입력 줄이기",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  },
  "pt-BR": {
    "Show # more inputs": "Mostrar mais # entradas",
    "Show fewer inputs": "Mostrar menos entradas",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  },
  "ru": {
    "Show # more inputs": "Показать ещё входы: #",
    "Show fewer inputs": "Показать меньше входов",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  },
  "zh": {
    "Show # more inputs": "显示另外 # 个输入",
    "Show fewer inputs": "收起输入",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  },
  "zh-TW": {
    "Show # more inputs": "顯示另外 # 個輸入",
    "Show fewer inputs": "收合輸入",
    "Copy seal {digest}": "Copy seal {digest}",
    "Copy file's SHA-256 {digest}": "Copy file's SHA-256 {digest}",
    "Copy base's SHA-256 {digest}": "Copy base's SHA-256 {digest}",
    "Copied": "Copied",
    "Copy it from here": "Copy it from here",
    "{name}: {value} is not in the list. Choose another one.": "{name}: {value} is not in the list. Choose another one."
  }
}
export const CHOICES = {
  "de": {},
  "es": {},
  "fr": {},
  "ja": {},
  "ko": {},
  "pt-BR": {},
  "ru": {},
  "zh": {},
  "zh-TW": {}
}
