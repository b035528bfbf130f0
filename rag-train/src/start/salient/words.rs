//! The word lists of the rules.

use std::{collections::HashSet, sync::LazyLock};

/// Words that begin sentences, though no name.
pub(super) static FUNCTION_WORDS: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    "a an the this that these those it its he she they we you i his her their our your my him them us \
     me who whom whose which what when where why how in on at by to from of for with without within \
     during after before since until till while whilst as if although though because but and or nor \
     so yet then than also however moreover furthermore therefore thus hence meanwhile nevertheless \
     there here some many most several few all both each every either neither no not such other \
     others another only even just still more less much almost nearly about around is are was were be \
     been being has have had do does did can could may might must shall should will would under over \
     between among amongst through throughout across against above below near along upon into onto \
     toward towards despite unlike like including according due following instead later earlier early \
     late recently today now once often sometimes usually generally typically originally initially \
     finally eventually currently previously subsequently additionally similarly conversely overall \
     further especially particularly perhaps indeed rather modern ancient former recent prior using \
     based given apart aside whereas whether again thereafter afterwards formerly historically \
     officially see one two three four five six seven eight nine ten eleven twelve"
        .split_whitespace()
        .collect()
});

/// Words in lower case that join two parts of a name.
pub(super) const CONNECTORS: &[&str] = &[
    "of", "de", "van", "von", "der", "den", "la", "le", "du", "da", "do", "di", "del", "della",
    "des", "dos", "das", "al", "el", "bin", "ibn", "ben", "y", "zu", "af", "av", "ter",
];

/// Words that may follow a connector: `of the`, `de la`.
pub(super) const SECOND_CONNECTORS: &[&str] =
    &["the", "la", "las", "los", "le", "der", "den", "al", "el"];

/// Words that `the` may join to a name.
pub(super) const EPITHETS: &[&str] = &[
    "Great",
    "Elder",
    "Younger",
    "Conqueror",
    "Magnificent",
    "Terrible",
    "Bold",
    "Wise",
    "Pious",
];

/// Abbreviations with which a name begins.
pub(super) const TITLES: &[&str] = &[
    "Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Ste", "Mt", "Ft", "Gen", "Col", "Lt", "Sgt", "Maj",
    "Capt", "Adm", "Sen", "Rep", "Gov", "Rev", "Hon",
];

/// With a capital, but no names: dates are found by themselves, and units are left out.
pub(super) static NO_NAMES: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June \
     July August September October November December Jan Feb Mar Apr Aug Sep Sept Oct Nov Dec AD BC \
     BCE CE A.D. B.C. AM PM Hz kHz MHz GHz THz kW MW GW kWh MWh kB KB MB GB TB Mbit Gbit kPa MPa GPa \
     dB pH mAh USD GBP EUR CEO CFO COO PhD"
        .split_whitespace()
        .collect()
});

/// The characters that stand for the sounds of other languages.
pub(super) const TRANSLITERATION: &str = "阿埃艾爱安昂奥澳巴白柏拜班邦包鲍保北贝倍本比彼毕边宾滨波玻伯博勃布卜采蔡策查察昌彻楚茨慈\
    次达大戴黛丹道得德登邓迪狄蒂丁东都杜敦顿多朵厄恩耳尔法凡范方菲斐费芬丰冯佛夫弗福傅盖甘冈\
    高戈哥歌格葛根贡古瓜圭郭果哈海汉翰豪赫黑亨洪胡华怀惠霍基吉季加贾嘉简江杰金津京井喀卡凯坎\
    康考柯科可克肯孔库夸奎昆拉腊莱赖兰郎朗劳勒雷蕾黎李里理丽利莉立力莲连廉列林琳龙隆卢鲁露伦\
    仑罗洛吕律略马玛麦迈曼芒毛梅门蒙孟米密蜜敏明缪摩莫默姆木穆拿娜纳乃奈南瑙内妮尼涅宁牛纽农\
    努诺欧帕派潘庞培佩彭蓬皮匹平珀泼普齐奇契乔切钦琴丘屈让热仁日荣茹儒瑞若撒萨塞赛桑瑟森沙莎\
    山尚绍舍什圣施史士舒斯丝思司松苏孙索塔泰坦汤唐陶特藤提图托脱瓦万旺威维韦伟温文翁沃乌武伍\
    西希锡席夏香萧肖谢辛欣休修许逊雅亚扬杨耶叶伊依易因英尤雨约越泽扎詹珍芝朱兹子佐茜薇娅婭伽\
    堡治苗廷慕宛泊坡札哲真卓宗祖尊芙妲姬苔璐珊茱菈萝罕霞茵蒋隐绿底衮墨鄂宙琼俄蒲";

/// Those of them that end a name, and seldom are words of their own.
pub(super) const LAST_SOUNDS: &str =
    "克德斯尔特夫姆卡娅妮娜茨兹森顿堡伯格莱拉罗维诺塔丝蒂莎茜琳琪纳伽恩";

/// The first characters of most Chinese names of persons.
pub(super) const SURNAMES: &str = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡\
    贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷\
    钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂丛焦向柳邢路\
    岳齐沿梅莫庄辛管祝左涂谷祁时舒耿牟卜肖詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍\
    翁隋植甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边诸上官皇甫";

/// Surnames that are as often a word: they need more than one character after them.
pub(super) const WORDS_AND_SURNAMES: &str = "于叶任成方高常易向包单石白金段时车边花温水文马林";

/// Characters that follow a name in Chinese and are no part of it.
pub(super) const PARTICLES: &str = "于为及后与和在是之的等曾将称出也又所有被对从到则并且说家";

/// Characters that end the name of a place, people or body.
pub(super) const LAST_CHARACTERS: &str =
    "省市县区州郡镇乡村国族河江湖海山岛港寺宫庙塔桥路街站城堡党队军奖杯报语人";

/// Words that end the name of a place or body.
pub(super) const LAST_WORDS: &[&str] = &[
    "山脉",
    "半岛",
    "群岛",
    "平原",
    "高原",
    "盆地",
    "沙漠",
    "海峡",
    "大桥",
    "铁路",
    "公路",
    "机场",
    "医院",
    "博物馆",
    "图书馆",
    "公园",
    "大道",
    "大学",
    "学院",
    "中学",
    "小学",
    "公司",
    "集团",
    "银行",
    "议会",
    "国会",
    "政府",
    "帝国",
    "王国",
    "公国",
    "共和国",
    "王朝",
    "战役",
    "战争",
    "之战",
    "条约",
    "起义",
    "革命",
    "联赛",
    "锦标赛",
    "公开赛",
    "运动会",
    "奥运会",
    "协会",
    "联合会",
    "委员会",
    "研究所",
    "出版社",
    "电视台",
    "剧院",
    "球场",
    "体育场",
    "教堂",
    "教会",
    "地区",
    "宣言",
    "航空",
    "广场",
    "大厦",
    "法院",
    "神社",
    "王宫",
    "体育馆",
    "联盟",
    "联邦",
    "王室",
    "行省",
];

/// Endings of proper nouns that are neither person, place nor body: peoples, faiths, wars, prizes.
pub(super) const OTHER_ENDINGS: &[&str] = &[
    "族", "教", "语", "人", "战争", "大战", "革命", "运动", "起义", "杯", "奖",
];

/// Tagged as names in jieba's dictionary, though they are none.
pub(super) static COMMON_NOUNS: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    include_str!("common_nouns.txt")
        .split_whitespace()
        .collect()
});

/// Whether a word is one that begins many sentences.
pub(super) fn is_function_word(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    FUNCTION_WORDS.contains(word.to_lowercase().as_str())
}
