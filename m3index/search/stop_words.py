"""Words that tell nothing about a text, so that highlighting them would bury those that do.

These are the articles, prepositions, pronouns, auxiliary verbs and question words of common languages. The
language of a query is not known; therefore all lists count together, and words that are nouns or verbs of
another one of these languages are left out as far as they are common there.
"""

from __future__ import annotations

from functools import cache

from m3index.store.analyzer import fold

_WORDS = """
a about after all also an and any are as at be because been before between but by can could did do does for
from had has have how i if in into is it its may more most no nor not of on or our shall should so some such
than that the their them then there these they this those to under was we were what when where which while
who whom whose why will with would you your

aber am an auf aus bei beim bin da das dass dem den der des dich die dies diese dieser ein eine einem einen
einer eines er es für hat haben ich ihr im ins ist kann kein keine mit nach nicht noch nur ob oder sein sich
sie sind über um und uns unter vom von vor wann war warum was weil welche welcher welches wenn wer werden
wie wir wird wo zu zum zur zwischen

au aux avec ce ces cette ceux chez comme comment dans de des dont du elle en est et il ils je la le les leur
leurs mais ne nous ou où par pas plus pour pourquoi qu quand que quel quelle quelles quels qui quoi sa sans
se ses son sont sous sur un une vous à été

al como cómo con cual cuál cuando cuándo de del donde dónde e el ella ellos en entre era es esta este esto
fue ha hay la las lo los más muy ni no nos o para pero por porque que qué quien quién se ser si sin sobre
son su sus también un una unas unos y

agli ai alla alle anche che chi ci come con cosa da dagli dai dal dalla degli dei del della delle di dove e
gli ha ho i il in io la le lo ma nei nel nella non per perché più quale quali quando si sono su sul sulla
tra un una uno è

ao aos as até com como da das do dos ela ele em entre era foi isso mais mas na nas no nos não o os ou para
pela pelo por quais qual quando quanto que quem se sem ser seu sua são também um uma é

aan als bij dat de die dit door een en er het hij hoe ik in is je maar met naar niet of om onder ook op over
te tot uit van veel voor waar waarom wanneer wat welke we wie wordt ze zich zijn

att av den det där efter ej en ett från för han har hon hur hvad hvor hvordan i inte jag kan med men mot när
og och om på som till under var vad vem vi vid är over af at der er et fra han hun ikke jeg kan med men mot
når på skal som til ved vil være

ale aby by być czy co dla do gdzie i ich jak jest jego jej już kto lub ma na nie o od po przez przy się są
ta tak tego to tym w we z za ze że

и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по только ее мне было от о из
ему когда ли для или это этот эта эти кто где какой какая какие почему до при чем был была были быть их і в
на не що як та з до за у це для від або хто де чи є

a am au ce cea cel cum cu care când de din este și la în iar nu o pe pentru prin sau să sunt un unde unei
unui al ale că ca mai

acaba ama bir bu çok da daha de değil en gibi hangi her için ile ise kadar ki kim mi mı mu mü nasıl ne neden
nerede olan olarak o şu ve veya ya

αλλά από αυτό για δεν είναι η και με μια να ο οι όπου πού πώς ποιος ποια ποιο σε στα στη στην στις στο στον
τα τη την της τι τις το τον του τους των ως ή ένα ένας που

ان او اي الى إلى أن أو أي أين التي الذي في كان كانت كيف كم لا لم لماذا ما ماذا متى من هذا هذه هل هو هي و على
عن مع بين قد

का की के को में से पर है हैं था थी थे और या यह वह ये वे क्या कौन कहाँ कब क्यों कैसे जो तो ने भी ही एक नहीं

bởi các cái có cho của cùng để đã đang đó được gì hay không khi là làm mà một nào này như những ở ra rằng
sao sẽ tại thì trong từ và vào về vì với

ada adalah akan apa atau bagaimana dalam dan dapat dari dengan di ini itu juga ke mengapa oleh pada siapa
tidak untuk yang
"""


@cache
def stop_words() -> frozenset[str]:
    """The words, folded like the input of BM25."""
    return frozenset(map(fold, _WORDS.split()))
