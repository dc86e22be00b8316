#!/bin/sh
# A manual has a title, no open ends, and names every argument of the program.
set -eu
manual=$1
head -n 1 "$manual" | grep -q '^# ' || { echo "$manual: no title" >&2; exit 1; }
if grep -n 'to be written' "$manual"; then
    echo "$manual: the lines above are open ends" >&2
    exit 1
fi
for word in WIDTH ROWS; do
    grep -q "$word" "$manual" || { echo "$manual: $word is not explained" >&2; exit 1; }
    echo "$word is explained"
done
echo "$(wc -w < "$manual") words, no open ends"
