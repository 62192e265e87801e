"""Average precision as the data sets define it: COCO's (`coco`) and Pascal VOC's (`voc`)."""
