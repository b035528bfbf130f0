//! Dates and numbers of a sentence, by patterns.

use std::sync::LazyLock;

use regex::{Match, Regex};

use super::{
    chinese::Words,
    span::{Span, SpanKind},
};

/// Chinese digits and powers of ten.
const NUMERAL: &str = "[〇零○一二两三四五六七八九十百千万亿]";

static DATE: LazyLock<Regex> = LazyLock::new(|| {
    let year = r"(?:1\d|20)\d\d";
    let month = concat!(
        "(?:(?:January|February|March|April|May|June|July|August|September|October|November|December)",
        r"\b|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
    );
    let day = r"(?:[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?\b";
    let ordinal = concat!(
        r"(?:\d{1,2}(?:st|nd|rd|th)|(?i:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth",
        "|eleventh|twelfth|thirteenth|fourteenth|fifteenth|sixteenth|seventeenth|eighteenth|nineteenth",
        "|twentieth|twenty-first))"
    );
    let era = r"(?:BCE?\b|CE\b|AD\b|B\.C\.(?:E\.)?|A\.D\.)";
    let few = "[一二三四五六七八九十]{1,3}";
    let month_day =
        format!(r"(?:\s?(?:\d{{1,2}}|{few})\s?月份?(?:\s?(?:\d{{1,2}}|{few})\s?[日号])?)");
    let decade = "(?:[1-9]0|[二三四五六七八九]十)";
    let reign = concat!(
        "(?:民国|昭和|明治|大正|平成|令和|顺治|康熙|雍正|乾隆|嘉庆|道光|咸丰|同治|光绪|宣统|洪武|建文|永乐",
        "|宣德|正统|景泰|天顺|成化|弘治|正德|嘉靖|隆庆|万历|天启|崇祯|贞观|开元|天宝|建安)"
    );
    // Of two that begin at one place the first wins: longer ones stand above shorter ones.
    let patterns = [
        // 公元前221年
        format!(
            r"(?:公元前|西元前|公元|西元)\s?(?:\d{{1,4}}|{NUMERAL}{{1,6}})\s?(?:年代?{month_day}?|世纪)"
        ),
        // 1979至1997年
        format!(r"{year}\s?(?:至|到|[-–—－~～])\s?{year}\s?年"),
        // 2008年8月8日, 二〇〇八年, 1990年代
        format!(r"(?:{year}|[一二][〇零○一二三四五六七八九]{{3}})\s?年(?:代|{month_day})?"),
        format!(r"\d{{1,4}}\s?年{month_day}"),
        format!(r"{reign}(?:元|\d{{1,2}}|{few})年{month_day}?"),
        // 二十世纪六十年代, 80年代, 8月8日
        format!(r"(?:\d{{1,2}}|{few})世纪(?:{decade}年代)?|{decade}年代"),
        format!(
            r"(?:1[0-2]|[1-9])月(?:\d{{1,2}}[日号])?|{few}月{few}[日号]|(?:3[01]|[12]\d|[1-9])日"
        ),
        // 1998-03-12, 12/3/1998
        format!(r"{year}[-/]\d{{1,2}}[-/]\d{{1,2}}\b|\d{{1,2}}/\d{{1,2}}/{year}\b"),
        // 12 March 1998, March 12, 1998, March 1998
        format!(r"{day}(?:\sof)?\s{month}(?:,?\s{year}\b)?"),
        format!(r"{month}\s{day}(?:,?\s{year}\b)?|{month},?\s{year}\b"),
        format!(r"{ordinal}[\s-][Cc]entur(?:y|ies)\b(?:\s{era})?"),
        format!(
            r"\d{{1,3}}(?:,\d{{3}})+\s{era}|\d{{1,4}}(?:[–-]\d{{1,4}})?\s?{era}|(?:AD|A\.D\.)\s?\d{{1,4}}\b"
        ),
        // 1914–18, 1990s
        format!(r"{year}\s?[–—-]\s?(?:{year}|\d\d)\b|{year}s\b"),
        format!(r"(?P<year>{year})|(?P<early>前?\d{{2,3}}年{month_day}?)"),
    ];
    pattern(&patterns.join("|"))
});

/// Words before a number that is a year.
static BEFORE_YEAR: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"^\W*$|(?i:\b(?:in|since|until|till|during|circa|ca?\.|year|early|late|mid|before|after|between|through",
        r"|from|to|by|and|or|of|on|the|an?|spring|summer|autumn|fall|winter)[\s-])$",
        r"|[(（,，;；、–—－/~～]\s?$|[到至于在自]$|['’]s\s$|\p{Lu}[\w’'.]*\s$"
    ))
});

/// Words after a number that looks like a year and is none.
static COUNTED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"^(?:[-\s]?(?:people|persons|men|women|soldiers|troops|members|students|employees|pages",
        r"|years|days|hours|meters|metres|kilometers|kilometres|miles|feet|acres|tons|tonnes|dollars",
        r"|million|billion|km|mi|ft|kg|m|mm)\b|\s?[%°])"
    ))
});

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    let digits = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.:]\d+)?)";
    let scale = "(?:hundred|thousand|million|billion|trillion)";
    let unit = "(?i:two|three|four|five|six|seven|eight|nine)";
    let part = "(?:third|quarter|fifth|sixth|eighth|tenth)s?";
    let teen =
        "(?i:ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen)";
    let tens = "(?i:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)";
    let measure = concat!(
        "(?:人民币|个(?:月|小时|百分点)?|人次?|名|位|只|头|匹|条|座|所|间|家|幢|栋|层|楼|张|本|册|卷|篇|首|部|集|季|期",
        "|届|次|回|场|局|轮|代|岁|年|周|天|小时|分钟|秒|美元|日元|英镑|欧元|港元|港币|元|块|公里",
        "|千米|毫米|厘米|海里|英里|英尺|英寸|米|平方公里|平方千米|平方米|立方米|公顷|亩|公斤|千克|毫克|克|公吨",
        "|吨|斤|磅|毫升|升|摄氏度|度|℃|%|％|倍|成|种|类|项|件|辆|架|艘|台|支|枝|枚|颗|粒|户|股|级|段|站|胜|负|分",
        "|票|字|页|句|科|属|岛|省|州|县|市|区|镇|乡|村|门|贯|石)"
    );
    let patterns = [
        format!(r"(?:{NUMERAL}+|\d+)分之(?:{NUMERAL}+|\d+(?:\.\d+)?)(?:点{NUMERAL}+)?"),
        format!(
            r"第?(?:{digits}\s?(?:[百千万亿]+\d*)*|(?P<numeral>{NUMERAL}+))[多余几]?\s?{measure}"
        ),
        format!(r"{digits}(?:[百千万亿]+\d*)+"),
        format!(
            r"(?:US|HK|NT|[AC])?[$€£¥￥₤₹]\s?{digits}(?:[\s-]{scale}\b|\s?(?:bn|tn|m|k)\b|[千万亿]+)?"
        ),
        format!(r"{digits}(?:\s?[%％‰]|(?:st|nd|rd|th)\b|[\s-]{scale}\b)?"),
        format!(r"\b(?:(?i:one)|{unit})-{part}\b"),
        format!(
            r"\b(?:{tens}(?:-(?:one|{unit}))?|{teen}|{unit})(?:\s{scale})*\b|\b(?i:an?|one)\s{scale}\b"
        ),
    ];
    pattern(&patterns.join("|"))
});

/// A unit that is written onto its number.
static UNIT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(?:[kcmµ]?m[23²³]?|[kmµ]?g|ha|mi|ft|lbs?|[kMG]?Hz|[kMG]?W|[kMGT]B|mph|hp|bn|am|pm|x|°?[CFK])\b",
    )
});

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is constant")
}

/// The dates of a sentence.
pub(super) fn dates(sentence: &str) -> impl Iterator<Item = Span> {
    DATE.captures_iter(sentence)
        .filter_map(move |captures| {
            let whole = captures.get(0)?;
            let (before, after) = around(sentence, &whole);
            let year = captures.name("year").is_none()
                || BEFORE_YEAR.is_match(before) && !COUNTED.is_match(after);
            // 前541年, （211年）, but neither 之前20年 nor 20年.
            let early = captures.name("early").is_none_or(|early| {
                if early.as_str().starts_with('前') {
                    !before.ends_with(['之', '以', '目', '日', '生', '年'])
                } else {
                    before.ends_with(['（', '('])
                }
            });
            (year && early && stands_free(before, &whole, after)).then_some(whole)
        })
        .map(|found| span(found, SpanKind::Date))
}

/// The numbers of a sentence.
pub(super) fn numbers(words: &Words) -> impl Iterator<Item = Span> {
    NUMBER
        .captures_iter(words.sentence)
        .filter_map(move |captures| {
            let whole = captures.get(0)?;
            let (before, after) = around(words.sentence, &whole);
            let chinese = captures.name("numeral").is_none_or(|numeral| {
                // 一个 is an article, 零件 a part; 十分 means very, 四周 around; 万人 in 万人空巷 is no word.
                !matches!(numeral.as_str(), "一" | "零" | "万" | "千" | "百" | "亿")
                    && !matches!(whole.as_str(), "十分" | "四周")
                    && words.counts(whole.range())
            });
            let citation = before.ends_with('[') && after.starts_with(']');
            let cut = words.are_cut_at(whole.end());
            let number = chinese && !citation && !cut && stands_free(before, &whole, after);
            number.then_some(whole)
        })
        .map(|found| span(found, SpanKind::Number))
}

fn around<'a>(sentence: &'a str, found: &Match) -> (&'a str, &'a str) {
    (&sentence[..found.start()], &sentence[found.end()..])
}

/// Whether a quantity is not part of something longer: a word (`F-16`, `X.25`), a version (`3.1.4`).
fn stands_free(before: &str, found: &Match, after: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_digit = |c: char| c.is_ascii_digit();
    let mut previous = before.chars().rev();
    let begins = match (previous.next(), previous.next()) {
        _ if !found.as_str().starts_with(inside) => true,
        (Some('.' | '/'), Some(further)) => !further.is_ascii_alphanumeric(),
        (Some(',' | ':'), Some(further)) => !is_digit(further),
        (Some('-'), Some(further)) => !further.is_ascii_alphabetic() || before.ends_with("mid-"),
        (Some(last), _) => !inside(last),
        (None, _) => true,
    };
    let mut next = after.chars();
    let ends = match (next.next(), next.next()) {
        _ if !found.as_str().ends_with(inside) => true,
        (Some('.' | ',' | ':' | '/'), Some(further)) => !is_digit(further),
        (Some(next), _) => !inside(next) || UNIT.is_match(after),
        (None, _) => true,
    };
    begins && ends
}

fn span(found: Match, kind: SpanKind) -> Span {
    Span {
        bytes: found.range(),
        kind,
    }
}
