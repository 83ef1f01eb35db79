"""The named reactions that are asked about, and the rests their substrates may have. Textbook reactions, no data file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SMALL = ("C", "CC", "CCC", "C(C)C", "CCCC", "CC(C)C", "C1CC1", "CC1CC1")
"""Rests, bound by their first atom."""
LARGE = ("C1CCCC1", "C1CCCCC1", "Cc1ccccc1", "CC1CCCCC1", "CCc1ccccc1", "CCCCC", "CCC(C)C", "C1CCC1", "CCc1cccs1", "CC1CCOCC1")
ARYLS = ("c1ccccc1", "c1ccc(C)cc1", "c1ccc(F)cc1", "c1ccc(OC)cc1", "c1cccnc1", "c1ccsc1", "c1ccc2ccccc2c1")

_ESTERS = ("CCC(=O)OC", "CCCC(=O)OCC", "Cc1ccc(C(=O)OC)cc1", "C1CCC(C(=O)OC)CC1")
_LONG_ESTERS = ("CCCCCC(=O)OC", "CCCCCCC(=O)OCC", "Cc1ccc(C(=O)OC)cc1", "c1ccc(C(=O)OC)cc1")
"""Esters whose ends are too far apart to close a ring."""
_NITRILES = ("CCC#N", "CCCC#N", "Cc1ccc(C#N)cc1", "c1ccc(C#N)cc1")
_ALKENES = ("CCC=C", "CCCC=C", "C1CC=CC1", "CC1CCC=CC1")
_ETHERS = ("CCOC", "CCCOCC", "C1CCOC1", "C1CCOCC1", "c1ccc(OCC)cc1")
_CHLORINE = ("c1ccc(Cl)cc1", "c1cccc(Cl)c1", "Cc1ccc(Cl)cc1", "c1ccc(F)c(F)c1")
_AMIDES = ("CCC(N)=O", "CCC(=O)N(C)C", "c1ccc(C(=O)NC)cc1")
_TERTIARY_AMINES = ("CCN(C)C", "CN1CCCC1", "CCN1CCOCC1", "c1ccc(N(C)C)cc1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A named reaction."""

    name: str
    conditions: str
    """Reagents and what to take for granted, as the prompt says them."""
    smarts: str
    """The reaction, with one product."""
    heads: tuple[str, ...]
    """The reacting end of each reactant, to which a rest is appended."""
    needs: tuple[str, ...]
    """What each reactant has to have, in the words of a chemist: for feedback."""
    spectators: tuple[str, ...]
    """Rests of the first reactant with a group that stays as it is."""
    is_of_aryls: bool = False
    """The rests have to be aromatic rings."""
    unfit: tuple[str, ...] = ()
    """Rests beside which the reaction takes another course."""

    @property
    def can_be_planned(self) -> bool:
        """Whether two precursors are to be named that both can stand in an answer."""
        return len(self.heads) == 2 and "Mg" not in self.smarts


_AMINE = "[NX3;H2,H1;!$(N[C,S]=[O,S,N])"
_SULFONATE = "$([OX2]S(=O)(=O)[#6])"
_CARBONYL = "[CX3;$(C([#6])[#6]),$([CX3H1][#6])"

TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template(
            name="Fischer esterification",
            conditions="acid catalysis, water is removed",
            smarts="[CX3:1](=[O:2])[OX2H1].[OX2H1:3][CX4:4]>>[C:1](=[O:2])[O:3][C:4]",
            heads=("OC(=O)", "O"),
            needs=("carboxylic acid", "alcohol"),
            spectators=(*_ETHERS, *_ALKENES, *_CHLORINE, *_NITRILES),
        ),
        Template(
            name="amide coupling",
            conditions="with a carbodiimide",
            smarts=f"[CX3:1](=[O:2])[OX2H1].{_AMINE}:3]>>[C:1](=[O:2])[N:3]",
            heads=("OC(=O)", "N"),
            needs=("carboxylic acid", "amine"),
            spectators=(*_ESTERS, *_NITRILES, *_ETHERS, *_ALKENES, *_CHLORINE),
        ),
        Template(
            name="acylation of an amine",
            conditions="with an acyl chloride and a base",
            smarts=f"[CX3:1](=[O:2])[Cl].{_AMINE}:3]>>[C:1](=[O:2])[N:3]",
            heads=("ClC(=O)", "CN"),
            needs=("acyl chloride", "amine"),
            spectators=(*_ESTERS, *_NITRILES, *_ETHERS, *_ALKENES, *_CHLORINE),
        ),
        Template(
            name="Williamson ether synthesis",
            conditions="the alcohol is deprotonated with NaH, then SN2 at a primary alkyl halide",
            smarts=f"[OX2H1:1][#6;!$(C=O):2].[CX4;H2,H3:3][Br,Cl,I,{_SULFONATE}]>>[#6:2][O:1][C:3]",
            heads=("OC", "BrC"),
            needs=("alcohol", "primary alkyl halide or sulfonate"),
            spectators=(*_ETHERS, *_ALKENES, *_CHLORINE),
        ),
        Template(
            name="reductive amination",
            conditions="with NaBH3CN, one alkylation only",
            smarts=f"[CX3;H2,$(C([#6])[#6]),$([CX3H1][#6]):1]=[OX1].{_AMINE}:2]>>[C:1][N:2]",
            heads=("O=C", "N"),
            needs=("aldehyde or ketone", "amine"),
            spectators=(*_LONG_ESTERS, *_NITRILES, *_ETHERS, *_ALKENES, *_AMIDES),
        ),
        Template(
            name="Suzuki coupling",
            conditions="Pd catalyst and base",
            smarts=f"[c:1][Br,I,Cl,{_SULFONATE}].[c:2][BX3]([OX2])[OX2]>>[c:1][c:2]",
            heads=("Br", "OB(O)"),
            needs=("aryl halide or sulfonate", "arylboronic acid or ester"),
            spectators=("c1ccc(C(=O)OC)cc1", "c1ccc(C#N)cc1", "c1ccc(C(C)=O)cc1", "c1cccc(C=O)c1", "c1ccc(NC(C)=O)cc1"),
            is_of_aryls=True,
        ),
        Template(
            name="Grignard addition",
            conditions="in ether, then water",
            smarts=f"{_CARBONYL}:1]=[OX1:2].[#6:3][Mg][Br]>>[C:1]([O:2])[#6:3]",
            heads=("CC(=O)", "Br[Mg]"),
            needs=("ketone", "carbon-magnesium bond"),
            spectators=(*_ETHERS, *_ALKENES, *_CHLORINE, *_TERTIARY_AMINES[2:]),
        ),
        Template(
            name="reduction with NaBH4",
            conditions="in methanol, then water",
            smarts=f"{_CARBONYL}:1]=[OX1:2]>>[C:1][O:2]",
            heads=("CC(=O)",),
            needs=("ketone",),
            spectators=(*_LONG_ESTERS, *_NITRILES, *_ALKENES, *_AMIDES, *_CHLORINE),
        ),
        Template(
            name="reduction of an acid with LiAlH4",
            conditions="in ether, then water",
            smarts="[CX3:1](=[O:2])[OX2H1]>>[C:1][O:2]",
            heads=("OC(=O)",),
            needs=("carboxylic acid",),
            spectators=(*_ETHERS, *_ALKENES, *_TERTIARY_AMINES),
        ),
        Template(
            name="hydrogenation of an alkene",
            conditions="1 equivalent of H2 over Pd/C at room temperature",
            smarts="[CX3:1]=[CX3:2]>>[C:1][C:2]",
            heads=("C=C",),
            needs=("alkene",),
            spectators=(*_ESTERS, *_ETHERS, *_AMIDES, "CC(C)=O", "CCC(C)=O"),
        ),
        Template(
            name="Markovnikov addition of HBr",
            conditions="no peroxides",
            smarts="[CX3;H2:1]=[CX3;H1,H0:2]>>[C:1][C:2][Br]",
            heads=("C=C(C)",),
            needs=("alkene",),
            spectators=(*_ESTERS, *_CHLORINE, "CC(C)=O", "CCC(C)=O"),
            unfit=("C1CC1", "C1CCC1"),  # a strained ring opens or grows beside a cation
        ),
        Template(
            name="SN2 substitution with NaCN",
            conditions="in DMSO",
            smarts="[CX4;H2,H3:1][Br]>>[C:1]C#N",
            heads=("BrC",),
            needs=("bromine atom",),
            spectators=(*_ETHERS, *_ALKENES, *_ESTERS[:2], *_CHLORINE),
        ),
        Template(
            name="oxidation with PCC",
            conditions="in dry dichloromethane",
            smarts="[CX4;H2,H1;$(C[#6]):1][OX2H1:2]>>[C:1]=[O:2]",
            heads=("OC",),
            needs=("alcohol",),
            spectators=(*_ESTERS, *_NITRILES, *_ALKENES, *_ETHERS, "CC(C)(C)O"),
        ),
        Template(
            name="Wittig methylenation",
            conditions="with CH2=PPh3",
            smarts=f"{_CARBONYL}:1]=[OX1]>>[C:1]=[CH2]",
            heads=("CC(=O)",),
            needs=("ketone",),
            spectators=(*_ESTERS, *_NITRILES, *_ALKENES, *_ETHERS),
        ),
        Template(
            name="hydrolysis of a nitrile",
            conditions="hot aqueous acid, all the way to the carboxylic acid",
            smarts="[CX2:1]#[NX1]>>[C:1](=O)O",
            heads=("N#CC",),
            needs=("nitrile",),
            spectators=(*_CHLORINE, "CCC(C)=O", "Cc1ccc(C(C)=O)cc1", "CCC(=O)c1ccccc1", "CCC(=O)O"),
        ),
        Template(
            name="saponification of an ester",
            conditions="NaOH, then acid; the carboxylic acid is asked for",
            smarts="[CX3:1](=[O:2])[OX2H0][CX4]>>[C:1](=[O:2])O",
            heads=("COC(=O)",),
            needs=("ester",),
            spectators=(*_ETHERS, *_ALKENES, *_CHLORINE, "CCC(C)=O"),
        ),
    )
}
