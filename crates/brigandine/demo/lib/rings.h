/* A sheet of mail: rows of rings, each through two of the row above. */
#ifndef RINGS_H
#define RINGS_H

/* How many rings a sheet of this size has, or -1 when it cannot be made. */
long rings_in_sheet(int width, int rows);

/* How many rings the ring at this place goes through in the row above. */
int rings_above(int width, int row, int place);

#endif
