#!/usr/bin/env bash
# The fonts of params/letters_lt.yaml into data/fonts, from Debian's or Ubuntu's packages (40 MB): fetched and unpacked there, with
# nothing installed and no rights needed. Packages that this release does not have are left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p data/fonts/packages
cd data/fonts/packages
wanted=(
    3270 adf-accanthis adf-baskervald adf-berenis adf-gillius adf-irianis adf-libris adf-mekanus adf-oldania
    adf-switzera adf-tribun adf-verana aenigma agave aksharyogini2 alee allerta amiga anonymous-pro apropal arapey
    arkpandora arundina atarismall averia-gwf b612 babelstone-modern bebas-neue beteckna breip cabin cabinsketch
    cantarell cardo cegui century-catalogue clear-sans comfortaa comic-neue courier-prime croscore crosextra-caladea
    crosextra-carlito ddc-uchen dkg-handwriting dosis dseg dustin engadget essays1743 eurofurence fantasma fanwood
    ferrite-core gamaliel gemunu-libre georgewilliams glasstty go gotico-antiqua goudybookletter hermit hosny-amiri
    hosny-thabit humor-sans inconsolata jetbrains-mono jsmath junction jura klaudia-berenika league-mono leckerli-one
    lemonada lexi-gulim lexi-saebom lindenhill linex lyx manrope misaki monofur monoid mononoki mph-2b-damase myanmar
    nafees national-park ocr-a ocr-b oflb-asana-math okolaks oldstandard opendin opendyslexic osifont oxygen pagul
    paktype pc-extra play povray prociono proggy quattrocento quicksand radisnoir rit-sundar roadgeek roboto-fontface
    rufscript sambhota-yigchung sawarabi-gothic sil-gentium sixtyfour sjfonts sora spleen staypuft summersby terminus
    tiresias tomsontalks triod-postnaja tuffy ubuntu-title uralic yanone-kaffeesatz yrsa-rasa
)
apt-cache pkgnames fonts- | grep -Fx "$(printf 'fonts-%s\n' "${wanted[@]}")" | xargs apt-get download -qq
for package in *.deb; do dpkg-deb --extract "$package" ..; done
rm -r ../packages
