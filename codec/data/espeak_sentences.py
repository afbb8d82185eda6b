"""Sentences for the synthetic corpus: per language, noun phrases, verbs and places that all fit together."""

import random

# subjects | verbs (third person, with an object) | objects | places and times
LANGUAGES = {
    "en": (
        "the old baker,my youngest sister,a tired farmer,our new teacher,the quiet doctor,"
        "every good neighbour,the ship's captain,some thoughtful judge,a cheerful plumber,"
        "the yellow bird,his clever aunt,their huge dog",
        "found,measured,painted,carried,watched,forgot,borrowed,polished,described,enjoyed,chose,buried",
        "five warm loaves,the broken window,a strange letter,the heavy oak chair,fresh mushroom soup,"
        "a box of matches,that shiny spoon,the joyful music,a treasure map,three cheap watches,"
        "the wide blue vase,an early edition",
        "in the village,before the storm,near the frozen river,after school,on Thursday morning,"
        "under the bridge,beyond the valley,without a sound,at the usual hour,behind the garage",
    ),
    "de": (
        "der alte Bäcker,meine jüngste Schwester,ein müder Bauer,die neue Lehrerin,jeder gute Nachbar,"
        "das kleine Mädchen,unser freundlicher Arzt,die kluge Tante,der junge Richter,"
        "eine fröhliche Köchin",
        "findet,zeichnet,trägt,vergisst,beschreibt,verkauft,sucht,öffnet,versteckt,reinigt",
        "fünf warme Brote,das zerbrochene Fenster,einen seltsamen Brief,die schwere Kiste,"
        "frische Äpfel,das große Buch,einen grünen Schlüssel,zwölf süße Kirschen,die schöne Uhr,"
        "ein hübsches Bild",
        "im Dorf,vor dem Gewitter,am ruhigen Fluss,nach der Schule,jeden Donnerstag,unter der Brücke,"
        "hinter dem Haus,ohne ein Geräusch",
    ),
    "fr": (
        "le vieux boulanger,ma petite sœur,un paysan fatigué,notre nouvelle voisine,"
        "chaque bon médecin,la reine heureuse,un jeune pêcheur,cette femme joyeuse,le juge prudent,"
        "mon oncle bavard",
        "trouve,mesure,dessine,emporte,regarde,oublie,choisit,décrit,vend,nettoie",
        "cinq pains chauds,la fenêtre brisée,une lettre étrange,le grand fauteuil rouge,"
        "un bouquet de fleurs,la vieille montre,un œuf frais,trois gros poissons,l'image bleue,"
        "des champignons",
        "au village,avant l'orage,près de la rivière,après l'école,chaque jeudi matin,sous le pont,"
        "derrière la maison,sans aucun bruit",
    ),
    "es": (
        "el viejo panadero,mi hermana menor,un campesino cansado,nuestra nueva maestra,"
        "el médico tranquilo,cada buen vecino,la reina alegre,un joven pescador,aquella mujer,"
        "el juez prudente",
        "encuentra,mide,dibuja,lleva,mira,olvida,elige,describe,vende,limpia",
        "cinco panes calientes,la ventana rota,una carta extraña,la silla pesada,un ramo de flores,"
        "el reloj antiguo,tres huevos frescos,la guitarra roja,un queso enorme,las llaves verdes",
        "en el pueblo,antes de la lluvia,cerca del río,después de la escuela,cada jueves,"
        "bajo el puente,detrás de la casa,sin ningún ruido",
    ),
    "it": (
        "il vecchio fornaio,mia sorella minore,un contadino stanco,la nuova maestra,il medico gentile,"
        "ogni buon vicino,la regina felice,un giovane pescatore,quella signora,il giudice prudente",
        "trova,misura,disegna,porta,guarda,dimentica,sceglie,descrive,vende,pulisce",
        "cinque pani caldi,la finestra rotta,una strana lettera,la sedia pesante,un mazzo di fiori,"
        "l'orologio antico,tre uova fresche,la chitarra rossa,gli gnocchi,le chiavi verdi",
        "nel villaggio,prima della pioggia,vicino al fiume,dopo la scuola,ogni giovedì,"
        "sotto il ponte,dietro la casa,senza alcun rumore",
    ),
    "nl": (
        "de oude bakker,mijn jongste zus,een vermoeide boer,onze nieuwe juf,de rustige dokter,"
        "elke goede buurman,het kleine meisje,de vrolijke kok,een jonge visser,die slimme tante",
        "vindt,meet,tekent,draagt,bekijkt,vergeet,kiest,beschrijft,verkoopt,poetst",
        "vijf warme broden,het gebroken raam,een vreemde brief,de zware stoel,verse soep,"
        "een bos bloemen,de oude klok,drie mooie schepen,het grote boek,de groene sleutel",
        "in het dorp,voor het onweer,bij de rivier,na school,elke donderdag,onder de brug,"
        "achter het huis,zonder geluid",
    ),
    "pl": (
        "stary piekarz,moja młodsza siostra,zmęczony rolnik,nasza nowa nauczycielka,"
        "każdy dobry sąsiad,spokojny lekarz,wesoła królowa,młody rybak,ta mądra ciocia,"
        "ostrożny sędzia",
        "znajduje,mierzy,rysuje,niesie,ogląda,wybiera,opisuje,sprzedaje,czyści,pamięta",
        "pięć ciepłych bułek,rozbite okno,dziwny list,ciężkie krzesło,świeżą zupę,bukiet kwiatów,"
        "stary zegar,trzy duże ryby,żółtą książkę,zielony klucz",
        "we wsi,przed burzą,nad rzeką,po szkole,w każdy czwartek,pod mostem,za domem,bez żadnego dźwięku",
    ),
    "pt": (
        "o velho padeiro,minha irmã mais nova,um camponês cansado,a nova professora,o médico calmo,"
        "cada bom vizinho,a rainha feliz,um jovem pescador,aquela senhora,o juiz prudente",
        "encontra,mede,desenha,leva,olha,esquece,escolhe,descreve,vende,limpa",
        "cinco pães quentes,a janela quebrada,uma carta estranha,a cadeira pesada,um ramo de flores,"
        "o relógio antigo,três ovos frescos,o violão vermelho,um queijo enorme,as chaves verdes",
        "na aldeia,antes da chuva,perto do rio,depois da escola,toda quinta-feira,debaixo da ponte,"
        "atrás da casa,sem nenhum barulho",
    ),
    "sv": (
        "den gamla bagaren,min yngsta syster,en trött bonde,vår nya lärare,den lugna läkaren,"
        "varje god granne,den glada drottningen,en ung fiskare,min kloka moster,den stora hunden",
        "hittar,mäter,ritar,bär,glömmer,väljer,beskriver,säljer,putsar,gömmer",
        "fem varma bröd,det trasiga fönstret,ett konstigt brev,den tunga stolen,färsk soppa,"
        "en bukett blommor,den gamla klockan,tre vackra skepp,en gul bok,den gröna nyckeln",
        "i byn,före ovädret,vid den frusna sjön,efter skolan,varje torsdag,under bron,bakom huset,utan ett ljud",
    ),
    "fi": (
        "vanha leipuri,nuorin siskoni,väsynyt maanviljelijä,uusi opettaja,rauhallinen lääkäri,"
        "jokainen hyvä naapuri,iloinen kuningatar,nuori kalastaja,viisas tätini,iso koira",
        "löytää,mittaa,piirtää,kantaa,katselee,unohtaa,valitsee,kuvailee,myy,pesee",
        "viisi lämmintä leipää,rikkinäisen ikkunan,oudon kirjeen,raskaan tuolin,tuoretta keittoa,"
        "kukkakimpun,vanhan kellon,kolme kaunista laivaa,keltaisen kirjan,vihreän avaimen",
        "kylässä,ennen myrskyä,joen rannalla,koulun jälkeen,joka torstai,sillan alla,talon takana,ilman ääntä",
    ),
}
JOIN = {
    "en": "and",
    "de": "und",
    "fr": "et",
    "es": "y",
    "it": "e",
    "nl": "en",
    "pl": "i",
    "pt": "e",
    "sv": "och",
    "fi": "ja",
}


def sentence(language: str, rng: random.Random) -> str:
    """One of some 10,000 plain statements, or two of them joined, in `language` (a key of LANGUAGES)."""
    subjects, verbs, objects, places = (words.split(",") for words in LANGUAGES[language])

    def clause() -> str:
        return " ".join(rng.choice(words) for words in (subjects, verbs, objects))

    form = rng.randrange(3)
    text = clause() if form == 2 else f"{clause()} {rng.choice(places)}"
    if form:
        text += f", {JOIN[language]} {clause()}"
    return text[0].upper() + text[1:] + "."
