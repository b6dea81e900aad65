#include "textflag.h"

// The RBF kernel for AVX2. Each pass computes 16 rows in four vectors of 4. All 16
// registers are in use, so the polynomial's coefficients come from memory, four copies
// of each (exp2Wide). Loads aren't the bottleneck.
//
//	Y0…Y3    sums of the rows
//	Y4…Y7    distance, then t, then r
//	Y8…Y11   differences, then the polynomial
//	Y12…Y15  a feature of the support vector; then n in the low bits, 2^n
//	DI SI    sums and rows of this pass        R8   number of passes left
//	R9       bytes between columns             R10  support vectors
//	R11      their coefficients                R12  number of support vectors
//	R13      dims                              R14  exp2Wide
//	BX DX    positions in vectors and coefficients; CX  number of them left
//	AX R15   features left, the rows' current column

#define DISTANCE \
	VBROADCASTSD (BX), Y12      \
	ADDQ         $8, BX         \
	VSUBPD       (R15), Y12, Y8 \
	VSUBPD       32(R15), Y12, Y9 \
	VSUBPD       64(R15), Y12, Y10 \
	VSUBPD       96(R15), Y12, Y11 \
	ADDQ         R9, R15

#define HORNER(AT) \
	VFMADD213PD AT(R14), Y4, Y8  \
	VFMADD213PD AT(R14), Y5, Y9  \
	VFMADD213PD AT(R14), Y6, Y10 \
	VFMADD213PD AT(R14), Y7, Y11

// func rbfAVX2(sum, x *float64, passes, stride int, sv, coef *float64, count, dims int, factor float64)
TEXT ·rbfAVX2(SB), NOSPLIT, $0-72
	MOVQ sum+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ passes+16(FP), R8
	MOVQ stride+24(FP), R9
	SHLQ $3, R9
	MOVQ sv+32(FP), R10
	MOVQ coef+40(FP), R11
	MOVQ count+48(FP), R12
	MOVQ dims+56(FP), R13
	LEAQ ·exp2Wide(SB), R14

pass:
	VXORPD Y0, Y0, Y0
	VXORPD Y1, Y1, Y1
	VXORPD Y2, Y2, Y2
	VXORPD Y3, Y3, Y3
	MOVQ   R10, BX
	MOVQ   R11, DX
	MOVQ   R12, CX

vector:
	MOVQ   R13, AX
	MOVQ   SI, R15
	DISTANCE
	VMULPD Y8, Y8, Y4
	VMULPD Y9, Y9, Y5
	VMULPD Y10, Y10, Y6
	VMULPD Y11, Y11, Y7
	DECQ   AX
	JZ     power

feature:
	DISTANCE
	VFMADD231PD Y8, Y8, Y4
	VFMADD231PD Y9, Y9, Y5
	VFMADD231PD Y10, Y10, Y6
	VFMADD231PD Y11, Y11, Y7
	DECQ        AX
	JNZ         feature

power:
	// t = factor·d², but at least −1023. For t = −1023, n is −1023 and r is 0, and 1
	// with an exponent that is less by 1023 is 0.
	VBROADCASTSD factor+64(FP), Y12
	VMULPD       Y12, Y4, Y4
	VMULPD       Y12, Y5, Y5
	VMULPD       Y12, Y6, Y6
	VMULPD       Y12, Y7, Y7
	VMAXPD       384(R14), Y4, Y4
	VMAXPD       384(R14), Y5, Y5
	VMAXPD       384(R14), Y6, Y6
	VMAXPD       384(R14), Y7, Y7

	// n, the nearest integer, in the low bits of t + 1.5·2⁵².
	VADDPD 416(R14), Y4, Y12
	VADDPD 416(R14), Y5, Y13
	VADDPD 416(R14), Y6, Y14
	VADDPD 416(R14), Y7, Y15

	// r = t − n.
	VSUBPD 416(R14), Y12, Y8
	VSUBPD 416(R14), Y13, Y9
	VSUBPD 416(R14), Y14, Y10
	VSUBPD 416(R14), Y15, Y11
	VSUBPD Y8, Y4, Y4
	VSUBPD Y9, Y5, Y5
	VSUBPD Y10, Y6, Y6
	VSUBPD Y11, Y7, Y7

	// Move n to the position of a float64's exponent.
	VPSLLQ $52, Y12, Y12
	VPSLLQ $52, Y13, Y13
	VPSLLQ $52, Y14, Y14
	VPSLLQ $52, Y15, Y15

	// The polynomial, from the coefficient of r¹¹ to that of r⁰, which is 1.
	VMOVUPD 320(R14), Y8
	VMOVUPD 320(R14), Y9
	VMOVUPD 320(R14), Y10
	VMOVUPD 320(R14), Y11
	HORNER(288)
	HORNER(256)
	HORNER(224)
	HORNER(192)
	HORNER(160)
	HORNER(128)
	HORNER(96)
	HORNER(64)
	HORNER(32)
	HORNER(0)
	HORNER(352)

	// Multiply by 2^n by adding to the exponent, multiply by the coefficient, and add
	// to the sums.
	VBROADCASTSD (DX), Y4
	ADDQ         $8, DX
	VPADDQ       Y12, Y8, Y8
	VPADDQ       Y13, Y9, Y9
	VPADDQ       Y14, Y10, Y10
	VPADDQ       Y15, Y11, Y11
	VFMADD231PD  Y8, Y4, Y0
	VFMADD231PD  Y9, Y4, Y1
	VFMADD231PD  Y10, Y4, Y2
	VFMADD231PD  Y11, Y4, Y3
	DECQ         CX
	JNZ          vector

	VMOVUPD Y0, (DI)
	VMOVUPD Y1, 32(DI)
	VMOVUPD Y2, 64(DI)
	VMOVUPD Y3, 96(DI)
	ADDQ    $128, DI
	ADDQ    $128, SI
	DECQ    R8
	JNZ     pass
	VZEROUPPER
	RET

// func peakAVX2(n int)
TEXT ·peakAVX2(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX

again:
	VFMADD231PD Y14, Y15, Y0
	VFMADD231PD Y14, Y15, Y1
	VFMADD231PD Y14, Y15, Y2
	VFMADD231PD Y14, Y15, Y3
	VFMADD231PD Y14, Y15, Y4
	VFMADD231PD Y14, Y15, Y5
	VFMADD231PD Y14, Y15, Y6
	VFMADD231PD Y14, Y15, Y7
	VFMADD231PD Y14, Y15, Y8
	VFMADD231PD Y14, Y15, Y9
	VFMADD231PD Y14, Y15, Y10
	VFMADD231PD Y14, Y15, Y11
	DECQ        CX
	JNZ         again
	VZEROUPPER
	RET
