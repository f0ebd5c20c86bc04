// Made by `python dev.py generate`.
export const WORDS = {
  "de": {
    "Show # more inputs": "# weitere Eingänge zeigen",
    "Show fewer inputs": "Weniger Eingänge zeigen"
  },
  "es": {
    "Show # more inputs": "Mostrar # entradas más",
    "Show fewer inputs": "Mostrar menos entradas"
  },
  "fr": {
    "Show # more inputs": "Afficher # entrées de plus",
    "Show fewer inputs": "Afficher moins d’entrées"
  },
  "ja": {
    "Show # more inputs": "ほか#個の入力を表示",
    "Show fewer inputs": "入力を減らす"
  },
  "ko": {
    "Show # more inputs": "입력 #개 더 보기",
    "Show fewer inputs": "입력 줄이기"
  },
  "pt-BR": {
    "Show # more inputs": "Mostrar mais # entradas",
    "Show fewer inputs": "Mostrar menos entradas"
  },
  "ru": {
    "Show # more inputs": "Показать ещё входы: #",
    "Show fewer inputs": "Показать меньше входов"
  },
  "zh": {
    "Show # more inputs": "显示另外 # 个输入",
    "Show fewer inputs": "收起输入"
  },
  "zh-TW": {
    "Show # more inputs": "顯示另外 # 個輸入",
    "Show fewer inputs": "收合輸入"
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
